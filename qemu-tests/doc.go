// Package qemutests boots real machines: the driver in vm on a boot sector, and images as the builder makes them.
//
// Without -short it needs the tool root, which is made on first use. A core set of tests runs each time; those that are
// marked full run when the environment variable ALLOT_FULL is set. ALLOT_PATIENCE stretches every limit.
package qemutests
