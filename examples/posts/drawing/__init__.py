"""The invented pictures of the sample posts, drawn with Pillow."""
