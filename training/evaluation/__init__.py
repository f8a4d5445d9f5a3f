"""The evaluation report: figures that tell the truth about a bundle, and the page that shows them."""
