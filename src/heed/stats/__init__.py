"""Statistics of judgements: strengths, agreement, people, labels, calibration, best of n."""
