"""Statistics of judgements: strengths, intervals, calibration, best of n. numpy and scipy only."""
