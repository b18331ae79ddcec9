"""What is wrong with a data set, and cleaned copies of its annotations."""
