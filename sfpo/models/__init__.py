"""Where a starting policy comes from: made here, carried by a package, copied, or downloaded."""
