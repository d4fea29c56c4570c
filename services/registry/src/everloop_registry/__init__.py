"""Keeps pipelines and models; gates, approves, signs."""
