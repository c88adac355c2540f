"""Dialects: how other projects write demonstrations, comparisons and rankings.

base      what a dialect is: a reader to heed's own columns, and a writer back
turns     messages and texts in the spellings of the dialects
chat      alpaca, sharegpt, hh
ranked    ultrafeedback, helpsteer, helpsteer_preference, nemo
verl      prompts with a verifiable answer
convert   any of them to any kind that it holds, with every row accounted for
table     all of them by name, and which ones a row can be

Rows of heed's own columns are what TRL reads, and rankings: `prompt`, `completions` (a list),
`ranks` (a whole number each; smaller is better, equal is a tie), and perhaps `scores`.
"""
