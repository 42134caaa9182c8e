"""Bundles on devices: copied, validated on the device, then switched over."""
