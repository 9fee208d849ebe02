// Package judge holds no code, only tests: outside programs of the tool root judge what the packages below image write,
// each on its own and on inputs that a real image does not have. The judges of whole images are in qemu-tests. The tests
// are here and not beside those packages because image depends on nothing of the builder.
package judge
