"""Models and tokenizers: loaded, made, saved, adapted, and read as policy, value or reward."""
