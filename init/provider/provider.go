// Package provider reads what a hosting provider tells a new machine: the claim code, which the provider then can show to
// whoever has ordered the machine, as its console cannot be seen by everybody. See docs/device.md.
package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// Key is what the claim code is called: in user data as a line "allotment_claim: CODE", in a system's firmware (SMBIOS type
// 11) as a text "allotment_claim=CODE".
const Key = "allotment_claim"

// firmwareFile is where QEMU's -fw_cfg name=opt/org.allotment/claim shows, below sysfs.
const firmwareFile = "firmware/qemu_fw_cfg/by_name/opt/org.allotment/claim/raw"

const mostUserData = 64 << 10 // bytes

// Machine is where the claim code is looked for.
type Machine struct {
	Sys      string // sysfs, such as /sys
	Metadata string // base URL of the provider's service, such as http://169.254.169.254
	Client   *http.Client
}

// Firmware returns the code that the machine's firmware hands over; empty if it has none. Only whoever made the machine can put
// it there.
func (m Machine) Firmware() string {
	if b, err := os.ReadFile(filepath.Join(m.Sys, firmwareFile)); err == nil {
		if text := strings.TrimSpace(string(bytes.Trim(b, "\x00"))); text != "" {
			return text
		}
	}
	table, err := os.ReadFile(filepath.Join(m.Sys, "firmware/dmi/tables/DMI"))
	if err != nil {
		return ""
	}
	for _, s := range oemStrings(table) {
		if code, ok := strings.CutPrefix(s, Key+"="); ok {
			return strings.TrimSpace(code)
		}
	}
	return ""
}

// service is how a provider hands out user data.
type service struct {
	vendor string // as its machines' firmware calls it, SMBIOS type 1
	path   string
	header string // NAME: VALUE that each request must have
	token  string // path where a token for header is made first; empty: none is needed
}

// services are those of providers whose machines say in their firmware whose they are. In any other network nobody is asked:
// whoever answered there could claim the box.
var services = []service{
	{vendor: "Hetzner", path: "/hetzner/v1/userdata"},
	{vendor: "DigitalOcean", path: "/metadata/v1/user-data"},
	{vendor: "Vultr", path: "/user-data/user-data"},
	{vendor: "OpenStack Foundation", path: "/openstack/latest/user_data"},
	{vendor: "Amazon EC2", path: "/latest/user-data", header: "X-aws-ec2-metadata-token: ", token: "/latest/api/token"},
	{vendor: "Google", path: "/computeMetadata/v1/instance/attributes/user-data", header: "Metadata-Flavor: Google"},
}

// Network returns the code that the provider's metadata service hands over; empty if it has none, or if this is no machine of a
// provider that is known.
func (m Machine) Network(ctx context.Context) (string, error) {
	vendor, err := os.ReadFile(filepath.Join(m.Sys, "class/dmi/id/sys_vendor"))
	if err != nil {
		return "", nil // no such firmware
	}
	for _, s := range services {
		if s.vendor != strings.TrimSpace(string(vendor)) {
			continue
		}
		data, err := m.userData(ctx, s)
		if err != nil {
			return "", fmt.Errorf("cannot read the user data of %s: %w", s.vendor, err)
		}
		return claimIn(data), nil
	}
	return "", nil
}

func (m Machine) userData(ctx context.Context, s service) (string, error) {
	header := s.header
	if s.token != "" {
		token, err := m.request(ctx, http.MethodPut, s.token, "X-aws-ec2-metadata-token-ttl-seconds: 60")
		if err != nil {
			return "", err
		}
		header += strings.TrimSpace(token)
	}
	data, err := m.request(ctx, http.MethodGet, s.path, header)
	if errors.Is(err, errNone) {
		return "", nil
	}
	return data, err
}

// errNone is the error of a machine that was given no user data.
var errNone = errors.New("there is none")

func (m Machine) request(ctx context.Context, method, path, header string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, m.Metadata+path, nil)
	if err != nil {
		return "", err
	}
	if name, value, ok := strings.Cut(header, ": "); ok {
		r.Header.Set(name, value)
	}
	a, err := m.Client.Do(r)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	switch a.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusNoContent:
		return "", errNone
	default:
		return "", fmt.Errorf("the answer is %s", a.Status)
	}
	b, err := io.ReadAll(io.LimitReader(a.Body, mostUserData))
	return string(b), err
}

// claimIn finds the code in user data, of whatever form the rest of it is.
func claimIn(data string) string {
	for line := range strings.Lines(data) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), Key); ok {
			if value, ok := strings.CutPrefix(strings.TrimSpace(rest), ":"); ok {
				return strings.Trim(strings.TrimSpace(value), `"'`)
			}
		}
	}
	return ""
}
