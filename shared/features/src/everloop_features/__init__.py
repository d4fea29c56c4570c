"""The feature language and its one evaluator."""
