"""Why a classifier answers what it does: feature maps, class activation, and tests of such maps."""
