"""``camcal dashboard``: look at runs in the browser.  Reads only."""
