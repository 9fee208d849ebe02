package backup

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"strings"

	"allotment/api"
)

// Kinds of targets; see api.BackupTarget.
const (
	S3     = "s3"
	SFTP   = "sftp"
	Friend = "box" // another Allotment box, with its module backups
	REST   = "rest"
	USB    = "usb"
)

// maxField bounds every text of a target.
const maxField = 1000

var (
	labelForm = regexp.MustCompile(`^[A-Za-z0-9 _.-]{1,32}$`)
	userForm  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}$`)
)

// CheckTarget is an error in words for the officer who filled in the form, nil for a target that can be tried.
func CheckTarget(t api.BackupTarget) error {
	for _, field := range []string{t.Address, t.Folder, t.User, t.Secret, t.HostKey, t.Label} {
		if len(field) > maxField || strings.ContainsFunc(field, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return api.Errorf(api.Invalid, "a field of the backup's target is too long, or has characters that cannot be typed")
		}
	}
	if err := checkFolder(t.Folder); err != nil {
		return err
	}
	switch t.Kind {
	case S3:
		return checkS3(t)
	case SFTP:
		return checkSFTP(t)
	case Friend:
		return checkFriend(t)
	case REST:
		_, err := checkURL(t.Address)
		return err
	case USB:
		if !labelForm.MatchString(t.Label) {
			return api.Errorf(api.Invalid, "the name of the disk must be letters, digits, spaces, points and hyphens")
		}
		return nil
	}
	return api.Errorf(api.Invalid, "a backup cannot go to %q; it can go to s3, sftp, box, rest or usb", t.Kind)
}

func checkFolder(folder string) error {
	for _, element := range strings.Split(folder, "/") {
		if element == ".." {
			return api.Errorf(api.Invalid, "the backup's folder cannot lead upwards")
		}
	}
	return nil
}

func checkURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, api.Errorf(api.Invalid, "the address must be one such as https://backup.example.org")
	}
	return u, nil
}

func checkS3(t api.BackupTarget) error {
	u, err := checkURL(t.Address)
	switch {
	case err != nil:
		return err
	case strings.Trim(u.Path, "/") != "":
		return api.Errorf(api.Invalid, "the address of the storage ends with its name; the bucket goes into the folder")
	case strings.Trim(t.Folder, "/") == "":
		return api.Errorf(api.Invalid, "the folder must begin with the name of a bucket")
	case t.User == "" || t.Secret == "":
		return api.Errorf(api.Invalid, "the storage needs a key id and its secret key")
	}
	return nil
}

func checkSFTP(t api.BackupTarget) error {
	host, _ := splitPort(t.Address)
	switch {
	case host == "" || strings.ContainsAny(host, "/@ \\'\"") || strings.HasPrefix(host, "-"):
		return api.Errorf(api.Invalid, "the address must be a host name, such as backup.example.org or backup.example.org:23")
	case !userForm.MatchString(t.User):
		return api.Errorf(api.Invalid, "the server needs a user name")
	case t.Secret == "":
		return api.Errorf(api.Invalid, "the server needs a password")
	}
	return nil
}

// splitPort is the host and port of an SSH server.
func splitPort(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return strings.Trim(address, "[]"), "22"
	}
	return host, port
}

// repository is a target as restic knows it.
type repository struct {
	url     string
	env     []string // NAME=value
	options []string // arguments
	folder  string   // on this machine; empty: none
}

// repositoryOf is that of the target with the key. A disk is mounted at the folder disk; helper is the program that speaks
// SSH; authority is the file that has the target's own, if it has one.
func repositoryOf(t api.BackupTarget, k Key, disk, helper, authority string) repository {
	r := repository{env: []string{"RESTIC_PASSWORD=" + k.password()}}
	folder := strings.Trim(t.Folder, "/")
	switch t.Kind {
	case S3:
		r.url = "s3:" + strings.TrimRight(t.Address, "/") + "/" + folder
		r.env = append(r.env, "AWS_ACCESS_KEY_ID="+t.User, "AWS_SECRET_ACCESS_KEY="+t.Secret)
	case SFTP:
		host, port := splitPort(t.Address)
		r.url = "sftp::" + cmp.Or(strings.TrimSuffix(t.Folder, "/"), "allotment")
		r.options = []string{"-o", "sftp.command=" + helper + " " + SSHArgument}
		r.env = append(r.env, "ALLOTMENT_SSH_ADDRESS="+net.JoinHostPort(host, port), "ALLOTMENT_SSH_USER="+t.User,
			"ALLOTMENT_SSH_PASSWORD="+t.Secret, "ALLOTMENT_SSH_HOSTKEY="+t.HostKey)
	case Friend:
		r.url = friendURL(t)
		r.env = append(r.env, "RESTIC_REST_USERNAME="+t.User, "RESTIC_REST_PASSWORD="+t.Secret)
		if t.Authority != "" {
			r.env = append(r.env, "SSL_CERT_FILE="+authority) // Go reads it besides the system's folder
		}
	case REST:
		r.url = "rest:" + strings.TrimRight(t.Address, "/") + "/" + folder
		r.env = append(r.env, "RESTIC_REST_USERNAME="+t.User, "RESTIC_REST_PASSWORD="+t.Secret)
	case USB:
		r.folder = path.Join(disk, cmp.Or(folder, "allotment"))
		r.url = r.folder
	}
	r.env = append(r.env, "RESTIC_REPOSITORY="+r.url)
	return r
}

// Shown is the target without its secret.
func Shown(t api.BackupTarget) api.BackupTarget {
	t.Secret, t.Authority = "", ""
	return t
}

// Describe says where backups go, in a few words.
func Describe(t api.BackupTarget) string {
	switch t.Kind {
	case Friend:
		return t.User + " on " + t.Address
	case S3, REST:
		return strings.TrimRight(t.Address, "/") + "/" + strings.Trim(t.Folder, "/")
	case SFTP:
		return fmt.Sprintf("%s on %s", cmp.Or(t.Folder, "allotment"), t.Address)
	}
	return "the disk " + t.Label
}
