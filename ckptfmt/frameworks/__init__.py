"""Between trees of any framework's tensors and the core: adapters, what they hand over, what they have filled."""
