"""One case per module; each has a `CASE`. `bench.case.all_cases` finds them."""
