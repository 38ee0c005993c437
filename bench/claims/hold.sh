#!/usr/bin/env bash
# Train the teachers of the claims on a machine with GPUs: one queue a card, from a plain checkout with torch and NumPy.
#
#   bash bench/claims/hold.sh DATA OUT CARD [SHARE]
#
# DATA  folder of the data; `tokens` in place of CARD turns its texts into tokens, once, before the queues 1 to 3
# OUT   folder of checkpoints, results and logs; the same command goes on where it was stopped
# CARD  0 ResNet-50, then its student; 1 MobileNetV2, then its student; 2 DistilBERT, then BERT-tiny and its student;
#       3 GPT-2; `baseline` measures TF-IDF; `on` trains all teachers on, on card 0 to 3 side by side
# SHARE of the times below, 1 unless given; `STEPS=4 TINY=--tiny` in the environment shows on a CPU that all works
set -euo pipefail
data=$1 out=$2 card=$3 share=${4:-1}
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD/runtime:$PWD/exporter:$PWD" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
mkdir -p "$out"

seconds() { python3 -c "print($1 * $share)"; }

# train PROGRAM NAME FOLDER SECONDS [OPTION ...]: a failure ends this job, not the queue
train() {
	local program=$1 name=$2 folder=$3 limit
	limit=$(seconds "$4")
	shift 4
	python3 -m "bench.claims.$program" "$name" --data "$data" --out "$out/$folder" --time-limit "$limit" \
		${STEPS:+--steps "$STEPS"} ${TINY:+"$TINY"} "$@" >>"$out/$folder.log" 2>&1 ||
		echo "failed: $folder, see $out/$folder.log"
	tail -n 1 "$out/$folder.log"
}

# GPT-2 alone is worth the minute that compiling takes, on a GPU
compiled() { python3 -c "import torch; print('--compile' if torch.cuda.is_available() else '')"; }

# on CARD NAME SECONDS: the teacher trained on, which a seed is judged by if it is better
on() {
	CUDA_VISIBLE_DEVICES=$1 train teachers "$2" "$2-on" "$3" --start "$out/$2"
}

[[ $card =~ ^[0-9]+$ ]] && export CUDA_VISIBLE_DEVICES=$card
case $card in
tokens) python3 -m bench.claims.tokens --data "$data" ;;
baseline) python3 -m bench.claims.teachers baseline --data "$data" | tee "$out/baseline.json" ;;
0)
	train teachers resnet50 resnet50 400
	train students small-vision resnet50-student 120 --teacher "$out/resnet50"
	;;
1)
	train teachers mobilenetv2 mobilenetv2 300
	train students small-vision mobilenetv2-student 120 --teacher "$out/mobilenetv2"
	;;
2)
	train teachers distilbert distilbert 800 --masked-share 0.8
	train teachers berttiny berttiny 240 --masked-share 0.4 --teacher "$out/distilbert"
	train students small-text berttiny-student 120 --masked-share 0.4 --teacher "$out/berttiny"
	;;
3)
	# Word splitting is meant: it is an option or nothing.
	# shellcheck disable=SC2046
	train teachers gpt2 gpt2 500 $(compiled)
	train students looped-language gpt2-student 200 --teacher "$out/gpt2"
	;;
on)
	on 0 resnet50 130 &
	on 1 mobilenetv2 80 &
	(on 2 distilbert 90; on 2 berttiny 60) &
	on 3 gpt2 130 &
	wait
	;;
*)
	sed -n '2,11s/^# \?//p' "$0" >&2
	exit 2
	;;
esac
