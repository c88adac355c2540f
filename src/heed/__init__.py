"""heed: trains language models on what people prefer, and shows whether it worked."""

__version__ = "0.1.0"
