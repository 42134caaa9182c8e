"""A local HTTP service that answers raw input, for programs in any language on the device."""
