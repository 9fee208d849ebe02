package setup

import (
	"embed"
	"net/url"
)

// Messages are the words of the steps in every language, in messages/LANGUAGE.toml.
//
//go:embed messages/*.toml
var Messages embed.FS

// Device is a kind of device.
type Device string

// The devices that there are steps for, in the order of Devices.
const (
	Apple    Device = "apple"    // iPhone and iPad
	Mac      Device = "mac"      //
	Android  Device = "android"  //
	Computer Device = "computer" // Windows or Linux
)

// Devices lists the kinds of devices.
func Devices() []Device { return []Device{Apple, Mac, Android, Computer} }

// Step is one step that a person does: the message Key, and below it what she copies or opens.
type Step struct {
	Key     string // message, such as setup.apple.install
	Copy    string // text to copy, such as an address; empty: none
	Open    string // link to open on this device; empty: none
	Profile bool   // gets the profile (WriteProfile), with a new password in it
}

// Guide is how one thing is set up on one kind of device. Its title is the message setup.DEVICE.THING.
type Guide struct {
	Device Device
	Thing  string // dav or chat
	Steps  []Step
}

// Guides returns the steps for a device. A password for apps is shown above them on the page; no step has it.
func Guides(s Services, m Member, d Device) []Guide {
	var found []Guide
	if s.DAV != nil {
		found = append(found, Guide{d, "dav", davSteps(s, m, d)})
	}
	if s.Chat != nil {
		found = append(found, Guide{d, "chat", chatSteps(s, m, d)})
	}
	return found
}

func davSteps(s Services, m Member, d Device) []Step {
	address := s.DAV.URL(m.Name)
	switch d {
	case Apple:
		return []Step{{Key: "setup.apple.get", Profile: true}, {Key: "setup.apple.install"}, {Key: "setup.apple.unsigned"}}
	case Mac:
		return []Step{{Key: "setup.mac.get", Profile: true}, {Key: "setup.mac.install"}, {Key: "setup.apple.unsigned"}}
	case Android:
		link := url.URL{Scheme: "davx5", User: url.User(m.Name), Host: s.DAV.Host, Path: s.DAV.principal(m.Name)}
		return []Step{{Key: "setup.android.app", Copy: "DAVx⁵"}, {Key: "setup.android.open", Open: link.String()},
			{Key: "setup.android.address", Copy: address}, {Key: "setup.name", Copy: m.Name}, {Key: "setup.password"},
			{Key: "setup.android.choose"}}
	}
	return []Step{{Key: "setup.computer.app", Copy: "Thunderbird"}, {Key: "setup.computer.calendar", Copy: address},
		{Key: "setup.name", Copy: m.Name}, {Key: "setup.password"}, {Key: "setup.computer.contacts", Copy: address}}
}

// chatApp is a free program that keeps to XMPP.
func chatApp(d Device) string {
	switch d {
	case Apple, Mac:
		return "Monal"
	case Android:
		return "Conversations"
	}
	return "Gajim"
}

func chatSteps(s Services, m Member, d Device) []Step {
	steps := []Step{{Key: "setup.chat.app", Copy: chatApp(d)}, {Key: "setup.chat.address", Copy: m.Name + "@" + s.Domain},
		{Key: "setup.password"}}
	if s.Chat.Web != "" {
		steps = append(steps, Step{Key: "setup.chat.browser", Open: s.Chat.Web})
	}
	return steps
}
