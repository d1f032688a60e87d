"""The chapters of a deploy. Each says what must be true on a host; stoker/steps knows how it is made so."""
