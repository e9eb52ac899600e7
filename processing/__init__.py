"""LRSA for transformers: from posts to tensors, and from target sequences back to aspects."""

from importlib import import_module


_WHERE = {
    "DataCollatorForMABSA": "collator",
    "IndexFormat": "indexing_lrsa",
    "LRSAOnnxPredictor": "onnx_predictor",
    "LRSAProcessor": "processing_lrsa",
    "MABSAPipeline": "pipeline_lrsa",
    "MABSABatch": "batch_lrsa",
    "PostError": "post_files",
    "compute_mabsa_metrics": "metrics",
    "iterate_posts": "posts",
    "load_posts": "posts",
    "save_posts": "parquet_posts",
    "split_words": "words_lrsa",
}

__all__ = sorted(_WHERE)


def __getattr__(name):
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
