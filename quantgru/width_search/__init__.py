"""Search for widths of weights: small models that are still good, by trying many."""

from quantgru.width_search.pareto_search import SearchResult, search

__all__ = ["SearchResult", "search"]
