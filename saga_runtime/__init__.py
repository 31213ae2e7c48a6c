"""The ground floor: what every package of this project stands on, and none of them owns.

Every other package may import it; it imports none of them, and neither a broker's client nor sagaz.
"""
