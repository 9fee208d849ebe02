package install

// OpenTarget and AllParts are for the tests in install_test.
var (
	OpenTarget = openTarget
	AllParts   = allParts
)
