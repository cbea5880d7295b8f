"""BridgePure: a diffusion bridge from protected images to clean ones, fitted to pairs."""
