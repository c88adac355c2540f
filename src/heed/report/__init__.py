"""The report: one self-contained HTML file for each run, made from its folder."""
