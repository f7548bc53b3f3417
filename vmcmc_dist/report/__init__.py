"""The report: one self-contained HTML page of one run or several, read off the run folders."""
