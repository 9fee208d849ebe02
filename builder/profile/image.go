package profile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// imageForm is a name with a registry's host and a digest.
var imageForm = regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$`)

// CheckImage tells what is wrong with a reference to an OCI image: it must name the registry's host, and the image by
// digest, for tags can move.
func CheckImage(ref string) error {
	if !imageForm.MatchString(ref) {
		return errors.New("want HOST/NAME@sha256:DIGEST")
	}
	host, _, _ := strings.Cut(ref, "/")
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		return fmt.Errorf("%q is not the host of a registry; write it out, such as docker.io", host)
	}
	return nil
}
