"""SFPO in other projects' trainers. Nothing else in sfpo imports these modules, which need what they integrate with."""
