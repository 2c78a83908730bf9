#!/usr/bin/env bash
# The whole life of a language model on one screen: raw text → tokenizer → pretraining → evaluation → generation.
#   ./life.sh [TEXT]     a file or folder of your own; by default the documentation inside this Python
set -euo pipefail
TEXT=${1:-python}
RUN=${RUN:-runs/life}
MINUTES=${MINUTES:-3}

trivium doctor                                                            # what this machine is
trivium data prepare "$TEXT" --out "$RUN/data"                            # hold out, learn a tokenizer, write shards
trivium tokenizer inspect "$RUN/data/tokenizer" "Return the number of items in the list."
for family in decoder encoder encoder_decoder; do                         # write, read, rewrite
    trivium pretrain "recipes/$family.yaml" data.source="$TEXT" data.prepared="$RUN/data" run="$RUN/$family" --minutes "$MINUTES"
done
python -c "import json, sys; [print(json.loads(line)['text'] + '\n') for line in open(sys.argv[1])]" "$RUN/data/valid.jsonl" > "$RUN/valid.txt"
trivium evaluate "$RUN/decoder/final" "$RUN/valid.txt"                    # loss, perplexity, bits per byte
trivium generate "$RUN/decoder/final" "Return the" --max-new-tokens 40    # the writer
trivium generate "$RUN/encoder/final" "Return a [MASK] of strings."       # the reader
