"""A population: several runs that train together, by one step for all of them."""
