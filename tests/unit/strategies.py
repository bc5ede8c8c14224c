"""Random deployments and worlds for the laws of planning."""

from __future__ import annotations

from hypothesis import strategies as st

from llmctl.core.codec import canonical
from llmctl.core.deployment import (
    Deployment,
    GpuRequest,
    Healthcheck,
    Mount,
    Port,
    RenderedFile,
    ServiceSpec,
    WantedModel,
    container_name,
)
from llmctl.core.observed import Observed, ObservedService

STACK = "s"
SERVICES = ("job", "localai", "litellm", "extra")
words = st.text(st.characters(codec="utf-8"), max_size=8)
images = st.sampled_from(("a:1", "a:2", "b:1"))
volumes = st.sampled_from(("v1", "v2", "v3"))


@st.composite
def specs(draw: st.DrawFn, service: str) -> ServiceSpec:
    mounts = [Mount("volume", v, f"/{v}") for v in draw(st.lists(volumes, max_size=2, unique=True))]
    if draw(st.booleans()):
        mounts.append(Mount("bind", "/etc/x", "/x", read_only=True))
    gpu = st.builds(GpuRequest, st.just("nvidia"), st.sampled_from(((), ("GPU-1",))))
    check = st.builds(
        Healthcheck, st.just(("true",)), st.just(1), st.just(1), st.just(1), st.just(1)
    )
    return ServiceSpec(
        service=service,
        image=draw(images),
        job=service == "job",
        command=tuple(draw(st.lists(words, max_size=2))),
        environment=tuple(sorted(draw(st.dictionaries(words, words, max_size=2)).items())),
        mounts=tuple(mounts),
        ports=tuple(
            draw(
                st.lists(
                    st.builds(Port, st.just("127.0.0.1"), st.integers(1, 9), st.just(1)), max_size=1
                )
            )
        ),
        gpu=draw(st.none() | gpu),
        healthcheck=draw(st.none() | check),
        files=tuple(sorted(draw(st.dictionaries(words, words, max_size=2)).items())),
    )


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    names = draw(st.lists(st.sampled_from(SERVICES), unique=True))
    services = tuple(draw(specs(name)) for name in names)
    used = sorted({v for spec in services for v in spec.volumes})
    file = st.builds(RenderedFile, st.sampled_from(("f1", "f2")), words, words)
    return Deployment(
        stack=STACK,
        directory="/d",
        network=draw(st.just(STACK) | st.none()) if not services else STACK,
        volumes=tuple(used),
        services=services,
        files=tuple(draw(st.lists(file, max_size=2, unique_by=lambda f: f.path))),
        models=tuple(
            draw(
                st.lists(
                    st.builds(
                        WantedModel,
                        st.sampled_from(("m1", "m2")),
                        words,
                        st.sampled_from(((("x.gguf", 1),), (("x.gguf", None), ("y.gguf", 2)))),
                    ),
                    max_size=2,
                    unique_by=lambda m: m.name,
                )
            )
        ),
        purge=draw(st.booleans()),
    )


@st.composite
def containers(draw: st.DrawFn) -> tuple[ObservedService, ...]:
    found = []
    for service in draw(st.lists(st.sampled_from(SERVICES), unique=True)):
        spec = draw(specs(service))
        state = draw(
            st.sampled_from(("created", "running", "exited", "restarting", "paused", "dead"))
        )
        name = container_name(STACK, service)
        for suffix in draw(st.sampled_from((("",), ("", ".old"), (".old",)))):
            found += [
                ObservedService(
                    service=service,
                    container=name + suffix,
                    state=state,
                    digest=spec.digest,
                    spec=draw(st.just(canonical(spec)) | st.just("") | st.just("not json")),
                    directory="/d",
                    image_id=f"sha256:{spec.image}",
                    created=str(draw(st.integers(0, 9))),
                    exit_code=draw(st.none() | st.integers(0, 1)),
                )
            ]
    return tuple(found)


@st.composite
def worlds(draw: st.DrawFn) -> Observed:
    here = draw(st.lists(images, unique=True))
    return Observed(
        services=draw(containers()),
        networks=tuple(draw(st.lists(st.sampled_from((STACK, "other")), unique=True))),
        volumes=tuple(draw(st.lists(volumes, unique=True))),
        images={image: f"sha256:{image}" for image in here},
        files=draw(st.dictionaries(st.sampled_from(("f1", "f2")), words, max_size=2)),
        models=frozenset(
            draw(
                st.lists(
                    st.tuples(st.sampled_from(("m1", "m2")), st.sampled_from(("x.gguf", "y.gguf")))
                )
            )
        ),
    )
