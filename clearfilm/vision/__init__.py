"""The network, its input, its heatmap and the model bundle. The only shared code that imports torch."""
