"""Criteria, verdicts and questions asked of them."""
