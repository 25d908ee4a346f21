"""Defects of dispatchers that came before, planted again to see that the tests catch them."""
