"""The benchmark: suites of training runs, their results, and the tables made of them."""
