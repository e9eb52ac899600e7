"""How near `lrsa predict` comes to the rate of the model's own generation, and whether its memory stays flat.

    OMP_NUM_THREADS=1 python benchmarks/prediction_rate.py MODEL --posts 10000

MODEL is a trained one (a model that was not trained generates longer, which flatters the ratio). It reads the texts of
the sample posts under new ids, without pictures and rationales. In turns of 1,000 posts, one after the other in one
process: the model generates from batches of 32 that are tokenised, sorted by length and padded already, from every
third of them, and `lrsa predict` answers all these posts from Parquet to JSON Lines. Processor time counts, which
depends less than wall-clock time on what else the machine does; the ratio of the two rates is taken turn by turn.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from modeling_lrsa.chunk_predictor import SCHEMA, ChunkPredictor, count, load_predictor
from processing import load_posts
from processing.chunks import ChunkReader, cut
from processing.parts import Parts


TURN, BATCH = 1000, 32
MEGABYTE = 2**20


def write_posts(folder: Path, number: int) -> Path:
    """Sample posts with new ids, their texts turned by one word for each time that they come again."""
    samples = [
        text for rows in load_posts(Path(__file__).parents[1] / "examples" / "posts").values() for text in rows["text"]
    ]
    texts = []
    for index in range(number):
        words = samples[index % len(samples)].split()
        turn = index // len(samples) % len(words)
        texts.append(" ".join(words[turn:] + words[:turn]))
    path = folder / "posts.parquet"
    pq.write_table(pa.table({"id": [f"p{index}" for index in range(number)], "text": texts}), path)
    return path


@torch.inference_mode()
def generate(model, batches) -> float:
    started = time.process_time()
    for batch in batches:
        model.generate(**batch.to(model.device), return_dict_in_generate=True, output_scores=True)
    return time.process_time() - started


def batches_of(processor, texts: list[str]) -> list:
    texts = sorted(texts, key=lambda text: len(processor(text).input_ids[0]), reverse=True)
    return [processor(text=texts[i : i + BATCH], return_tensors="pt") for i in range(0, len(texts), BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or id")
    parser.add_argument("--posts", type=int, default=10_000)
    parser.add_argument("--output", default="benchmarks/results/prediction_rate.json")
    args = parser.parse_args()
    predictor = load_predictor(args.model, batch_size=BATCH)
    model, processor = predictor.model, predictor.processor
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        posts = write_posts(folder, args.posts)
        texts = pq.read_table(posts)["text"].to_pylist()
        worker = ChunkPredictor(ChunkReader(), predictor)
        parts = Parts(folder / "out", ".jsonl", SCHEMA, {}, count)
        aspects, own, whole, memory = 0, [], [], []
        for chunk in cut([posts], TURN):
            batches = batches_of(processor, texts[chunk.first : chunk.first + chunk.size])
            some = batches[len(own) % 3 :: 3]
            own.append(generate(model, some) * chunk.size / sum(len(batch["input_ids"]) for batch in some))
            started = time.process_time()
            aspects += parts.write(worker, chunk)["aspects"]
            whole.append(time.process_time() - started)
            memory.append(psutil.Process(os.getpid()).memory_info().rss / MEGABYTE)
            print(f"{chunk.first + chunk.size:6} posts  {own[-1] / whole[-1]:.3f}  {memory[-1]:.0f} MB", flush=True)
    ratios = [a / b for a, b in zip(own, whole)]
    result = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "posts": args.posts,
        "aspects": aspects,
        "generation, posts a processor second": round(args.posts / sum(own), 1),
        "lrsa predict, posts a processor second": round(args.posts / sum(whole), 1),
        "ratio, median of turns": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "memory after each turn, MB": [round(value) for value in memory],
    }
    print(json.dumps(result, indent=2))
    Path(args.output).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
