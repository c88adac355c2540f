"""The data room: files become records, records become rows of tokens, and every loss is counted.

    exchange   files, run folders and hub data sets <-> rows (dicts)
    transcripts, columns, formats
               one row of columns -> one record
    dialects   columns of other projects -> heed's own, and back
    judgements pairs and preferences of a run folder -> labelled pairs
    datasets   files -> records, with a report of what was dropped and why
    template, encoding, render
               records -> tokens and learn masks
    rows       records -> rows that fit a length, with a report of what was cut
    batch      rows -> tensors
    report     what was read, kept, cut, dropped and unsupervised
    inspect    all of it on one page

Up to `datasets`, and `report`: without torch.
"""
