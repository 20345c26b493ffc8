"""How much light fell: scales of flats, gain ratios, photodiode charges."""
