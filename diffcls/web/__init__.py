"""``diffcls demo --web``: a page on this machine to try the embedded models on.  docs/web.md tells what it does and why so.

`server` speaks HTTP, `guard` refuses who is not this page, `jobs` bounds the work, `classification` does it, `examples` has
pictures to begin with, `python_code` writes down what was done, `page/` is what the browser gets.
"""
