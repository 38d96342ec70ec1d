package servers

// MissingError names a program that is not on this machine, and how to get it.
type MissingError struct{ Program, Get string }

func (e MissingError) Error() string { return e.Program + " is not on this machine.\n" + e.Get }
