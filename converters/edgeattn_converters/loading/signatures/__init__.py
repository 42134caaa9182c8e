"""SavedModels without Keras layers, through one of their signatures."""
