"""Decoding as one native loop: C++ that is compiled where it runs, for plain transformers on a CPU.

`build` compiles the source into a cache, `library` loads it, `architectures` reads a transformers
module, `weights` packs its matrices, `decoder` runs one call. `heed.engines.local` chooses between
this path and the one through torch; both give the same tokens from the same logits.
"""
