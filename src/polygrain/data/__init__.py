"""From files to views: sources, the numbers of a crop, its pixels."""
