"""Image-text matching: scores of an image and a text, retrieval, and Winoground."""
