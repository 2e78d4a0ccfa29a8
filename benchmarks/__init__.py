"""Tables of rates and ratios, each measured in one run."""
