#!/bin/sh
# As in LocalAI's image: /readyz on the port of LOCALAI_ADDRESS or ADDRESS.
address=${LOCALAI_ADDRESS:-${ADDRESS:-:8080}}
exec python3 -c "
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=9)
" "http://127.0.0.1:${address##*:}/readyz"
