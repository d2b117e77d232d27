"""SFPO for other trainers (TRL, verl). Each module requires its trainer; the rest of sfpo does not import them."""
