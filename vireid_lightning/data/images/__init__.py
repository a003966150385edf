"""Images: reading, resizing, caching, augmenting, and the torch datasets that hand them out."""
